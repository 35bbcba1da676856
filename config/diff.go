package config

// Changes is what differs between two configurations.
type Changes struct {
	ShardsAdded, ShardsRemoved, ShardsChanged                []string
	TrunksAdded, TrunksRemoved, TrunksChanged                []string
	DeploymentsAdded, DeploymentsRemoved, DeploymentsChanged []string
	// Live are changed keys of other sections that take effect for new calls;
	// Restart are those that need the process to start again.
	Live, Restart []string
}
