// Package config turns Brewline's TOML into one validated, documented
// structure.
//
// [Load] reads a file and the shards.d/*.toml beside it, fills in every
// default, and reports all that is wrong at once, each problem with file, line,
// key and remedy. The struct tags are the single source of the keys, their
// defaults and their documentation: [Reference] prints docs/configuration.md
// from them.
package config

//go:generate go test -run ^TestReferenceIsCurrent$ -update .
