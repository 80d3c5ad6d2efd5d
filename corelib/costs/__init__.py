"""What runs cost before they run: work, time, memory, disk."""
