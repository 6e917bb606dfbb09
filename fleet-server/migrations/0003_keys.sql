-- Which key of the director has signed a directive, so that all are signed anew when it is replaced. Empty before this step.
ALTER TABLE directives ADD COLUMN signer TEXT NOT NULL DEFAULT '';
