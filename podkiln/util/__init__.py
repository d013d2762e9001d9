"""What every stage uses: processes, the console, threads, git tree ids, atomic writes."""
