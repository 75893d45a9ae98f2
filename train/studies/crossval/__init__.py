"""Every fold of a protocol, trained and tested, and one report of them all."""
