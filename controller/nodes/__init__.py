"""Node scaling at the edge: its settings file, a virtual cluster on a virtual clock, the simulation."""
