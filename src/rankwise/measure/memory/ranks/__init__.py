"""What one of several processes holds: its log, from that of a process that trains alone."""
