"""From files to a pipeline on the card: what is loaded with what, in which numbers and which memory mode."""
