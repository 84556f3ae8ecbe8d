"""The fault matrix: every state of the deploy process, and every fault that can hit it."""
