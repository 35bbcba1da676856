'use strict';
// Loads CommonJS modules as Node.js would, from /node_modules, one synchronous
// request each: a bundler would be one more thing to install.
const modules = {};

function text(path) {
  const r = new XMLHttpRequest();
  r.open('GET', path, false);
  r.send();
  return r.status === 200 ? r.responseText : null;
}

function resolve(name, dir) {
  if (!name.startsWith('.')) {
    const home = '/node_modules/' + name;
    const p = JSON.parse(text(home + '/package.json'));
    name = typeof p.browser === 'string' ? p.browser : p.main;
    dir = home;
  }
  const path = new URL(dir + '/' + name, location).pathname.replace(/\/$/, '');
  for (const end of ['.js', '', '/index.js']) {
    if (path in modules || path + end in modules) return path + (path in modules ? '' : end);
    if (end === '' && !/\.(js|json)$/.test(path)) continue;
    const source = text(path + end);
    if (source !== null) {
      modules[path + end] = { source };
      return path + end;
    }
  }
  throw new Error('no module ' + name + ' in ' + dir);
}

function requireFrom(dir) {
  return (name) => {
    const path = resolve(name, dir);
    const m = modules[path];
    if (!m.exports) {
      m.exports = {};
      if (path.endsWith('.json')) {
        m.exports = JSON.parse(m.source);
      } else {
        const run = new Function('module', 'exports', 'require', 'process', 'global', m.source + '\n//# sourceURL=' + path);
        run(m, m.exports, requireFrom(path.slice(0, path.lastIndexOf('/'))), { env: {} }, window);
      }
    }
    return m.exports;
  };
}
