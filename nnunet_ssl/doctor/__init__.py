"""`nnunet_ssl doctor`: what is there, what is wrong, and the command that puts it right. Changes nothing."""
