-- Whoever is not in a room learns only that it exists.
local bare = require "util.jid".bare;
local stanza = require "util.stanza";
local rooms = module:depends "muc";

module:hook("iq-get/bare/http://jabber.org/protocol/disco#info:query", function (event)
	local iq = event.stanza;
	local room = rooms.get_room_from_jid(bare(iq.attr.to));
	if not room or room:get_occupant_by_real_jid(iq.attr.from) then
		return;
	end
	event.origin.send(stanza.error_reply(iq, "auth", "forbidden"));
	return true;
end, 10);
