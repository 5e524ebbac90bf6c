"""`nnunet_ssl benchmark`: semi-supervised trainers x splits x folds x seeds as jobs that run here or on a cluster."""
