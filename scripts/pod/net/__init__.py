"""HTTP to hubs: connections, retries, what they serve, and whether what came is what was asked for."""
