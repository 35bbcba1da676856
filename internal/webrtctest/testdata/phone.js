'use strict';
// A phone that calls as the address of the page says, tells /event what
// happens, and does what /command answers.
const query = new URLSearchParams(location.search);
const tell = (what, more) => fetch('/event', { method: 'POST', body: JSON.stringify({ what, ...more }) });
window.addEventListener('error', (e) => tell('error', { text: e.message }));
window.addEventListener('unhandledrejection', (e) => tell('error', { text: String(e.reason) }));

const JsSIP = requireFrom('')('jssip');
const ua = new JsSIP.UA({
  sockets: [new JsSIP.WebSocketInterface(query.get('server'))],
  uri: 'sip:web@phone.example',
  register: false,
  session_timers: query.has('timers'),
});
ua.on('connected', () => tell('connected'));
ua.on('disconnected', (e) => tell('disconnected', { text: e.reason || String(e.code) }));

let session, pc, context, listening;

function call() {
  session = ua.call(query.get('room'), {
    mediaConstraints: { audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false }, video: false },
    pcConfig: { iceServers: [] },
  });
  pc = session.connection;
  pc.addEventListener('track', (e) => listen(e.streams[0] || new MediaStream([e.track])));
  pc.addEventListener('connectionstatechange', () => tell('connection', { text: pc.connectionState }));
  session.on('sdp', (e) => tell('sdp', { text: e.originator + ' ' + e.type + '\n' + e.sdp }));
  session.on('progress', () => tell('progress'));
  session.on('accepted', () => tell('accepted'));
  session.on('hold', (e) => tell('hold', { text: e.originator }));
  session.on('unhold', (e) => tell('unhold', { text: e.originator }));
  session.on('failed', (e) => tell('failed', { text: e.cause }));
  session.on('ended', (e) => {
    clearInterval(listening);
    tell('ended', { text: e.originator });
  });
}

// listen tells what is heard, as the frequency of the loudest part.
function listen(stream) {
  document.getElementById('speaker').srcObject = stream; // else nothing flows
  clearInterval(listening);
  if (context) context.close();
  context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 8192;
  context.createMediaStreamSource(stream).connect(analyser);
  const bins = new Float32Array(analyser.frequencyBinCount);
  listening = setInterval(async () => {
    analyser.getFloatFrequencyData(bins);
    const top = bins.indexOf(Math.max(...bins));
    const stats = { packets: 0, codec: '' };
    const all = await pc.getStats();
    all.forEach((s) => {
      if (s.type === 'inbound-rtp') {
        stats.packets = s.packetsReceived;
        const codec = all.get(s.codecId);
        stats.codec = codec ? codec.mimeType : '';
      }
      if (s.type === 'transport') Object.assign(stats, { srtp: s.srtpCipher, dtls: s.dtlsState, ice: s.iceState });
    });
    tell('heard', { frequency: top * context.sampleRate / analyser.fftSize, level: bins[top], ...stats });
  }, 200);
}

const commands = {
  call,
  hold: () => session.hold() || setTimeout(commands.hold, 50), // false while a request is under way
  resume: () => session.unhold() || setTimeout(commands.resume, 50),
  hangup: () => session.terminate(),
  digits: (text) => session.sendDTMF(text, { transportType: 'RFC2833' }),
};

async function obey() {
  for (;;) {
    const { name, text } = await (await fetch('/command')).json();
    if (name) commands[name](text);
  }
}

ua.start();
obey();
