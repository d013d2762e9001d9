"""What `python3 /opt/podkiln NAME` runs: one module a command, each with its main()."""
