"""What an audit attacks, one file each."""
