"""The wire contract, version 1: `.proto` files and the code generated from them."""
