"""The judge as a product: settings beside the weights, a live model behind a queue, grades with their statuses."""
