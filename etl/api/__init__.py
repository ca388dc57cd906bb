"""The vendor: finding its host, proving who we are, listing and downloading."""
