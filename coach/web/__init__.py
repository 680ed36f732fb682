"""What is HTTP: a Quart-Trio application and how Hypercorn serves it."""
