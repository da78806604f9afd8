"""Turns photos and videos of people into identities: selection, filters, output."""
