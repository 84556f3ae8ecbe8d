"""Deploys operating-system images on the Raspberry Pis of a PoE cluster."""
