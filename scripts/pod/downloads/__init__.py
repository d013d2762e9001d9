"""From a file that is asked for to a file that is there, whatever happens on the way."""
