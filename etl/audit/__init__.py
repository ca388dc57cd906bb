"""What the lake holds and whether it is right: status, verify, the page."""
