"""What several processes of one service share: who of them does what only one may do."""
