"""How quaver is built: what setup.py and the build backend know of the machine and of the environment around them."""
