"""The node threshold scaler: how many nodes each group should have, which one goes, and why. Pure, as all of core."""
