#!/usr/bin/env bash
# Opens a pull request with a patch, or renews the one that is open: for workflows, and run in a fresh checkout.
#
#   propose_pull_request.sh FOLDER TITLE PATH...
#
# FOLDER has change.patch, of which only what lies in PATH... is taken, and table.md, the text. GH_TOKEN, BASE and
# BRANCH are given in the environment.
set -euo pipefail

folder=$1 title=$2
shift 2
if [ ! -s "$folder/change.patch" ]; then
  echo "Nothing has changed."
  exit 0
fi
git switch --create "$BRANCH"
git apply --index "${@/#/--include=}" "$folder/change.patch"
git config user.name "github-actions[bot]"
git config user.email "41898282+github-actions[bot]@users.noreply.github.com"
git commit --quiet --message "$title"
gh auth setup-git
git push --force origin "HEAD:refs/heads/$BRANCH"
open=$(gh pr list --head "$BRANCH" --state open --json number --jq length)
if [ "$open" = 0 ]; then
  gh pr create --base "$BASE" --head "$BRANCH" --title "$title" --body-file "$folder/table.md"
else
  gh pr edit "$BRANCH" --body-file "$folder/table.md"
fi
