"""What the RPC methods do, one module per noun."""
