"""Figures of the control plane; each module is a command."""
