// Package brewery knows the deployments and shards at run time: it holds a
// control session to every shard, answers on which shard a room lives, and says
// how the session of a call reaches it and logs in there.
//
// A shard is one Prosody with its Jicofo; a deployment is a set of shards that
// share their rooms, usually all with the same domain names. Nothing here is
// therefore keyed by JID alone.
//
// [Set.Resolve] makes one deployment and one [Room] of what a call says.
// [Deployment.Locate] finds the room's shard: the call was told, or a shard
// answers that the room lives there, or the load balancer decides, or, without
// one, a weighted hash does. [Deployment.SessionOptions] has the rest.
package brewery
