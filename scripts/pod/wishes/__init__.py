"""From a word that somebody wrote to a file with a name, a folder and a hash."""
