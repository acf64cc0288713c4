"""What a step needs: arrays that record, rules that rewrite the record, and its Program."""
