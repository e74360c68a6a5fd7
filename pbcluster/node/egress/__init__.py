"""The way out for tenants: a proxy that connects to public addresses only. Off by default."""
