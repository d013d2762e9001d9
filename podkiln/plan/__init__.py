"""What would be built, decided without moving a byte: layers, limits, licences, refusals."""
