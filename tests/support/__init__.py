"""What tests share: real servers, and what they need."""
