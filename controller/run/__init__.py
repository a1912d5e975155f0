"""`headgate run`: the loop that observes hosts, decides, and puts decisions in force."""
