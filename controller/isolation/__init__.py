"""Plug-ins of others, each in processes of their own, so that what they do wrong stays there.

Isolated (fleet.py)   all of an installation: starts them, knows what they offer
Child (process.py)    one process as the loop sees it: calls with a deadline, kills, starts anew
child.py              what runs in it: loads the plug-in and answers one call after the other
wire.py               what crosses: frames, and values of our own types only
proxies.py            a plug-in's estimator and source as the loop uses them
"""
