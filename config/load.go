package config

// Load reads the file and the shards.d/*.toml beside it.
func Load(path string) (*Config, error) { return nil, nil }

// Diff compares two configurations.
func Diff(old, new *Config) Changes { return Changes{} }

// Reference returns docs/configuration.md.
func Reference() []byte { return nil }
