"""The client of the vendor's API: hosts, authentication, rate limits, listing, downloads."""
