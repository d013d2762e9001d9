"""From a file that is wanted to a file that is there, whatever happens on the way."""
