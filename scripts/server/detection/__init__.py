"""What a MODEL_ID names, and whether and how it can be served: from facts alone, without any I/O."""
