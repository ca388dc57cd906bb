"""The scanner under sanitizers and libFuzzer."""
