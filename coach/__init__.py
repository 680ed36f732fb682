"""Coach sales agents while they are on the phone."""
