// Package jigasi turns the configuration of a Jigasi into Brewline's TOML.
//
// [Import] reads the files of an installation: sip-communicator.properties in
// the syntax of java.util.Properties, the .env of docker-jitsi-meet, which is
// first made into the properties that the image would write, and the
// /etc/jitsi/jigasi/config of the Debian package. What could not be carried over
// is named with the reason, as notes and as comments in the TOML.
package jigasi
