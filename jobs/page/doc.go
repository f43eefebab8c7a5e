// Package page is the status page of a rotation worker: how each key stands,
// and a page for each key with what has happened to it.
//
//	p, err := page.New(runner, st)
//	http.Serve(listener, p)
//
// It is HTML and nothing else: no script, no file from elsewhere, no form but
// the filter. It changes nothing: GET and HEAD are answered, all else is refused.
//
//	GET /             the keys; ?state= and ?q= filter, ?page= turns the pages
//	GET /keys/{name}  a key: what to do if it is stuck, sinks, timeline, runs
//
// # Who may see it
//
// The page shows no token, but names of keys and of the places that tokens are
// delivered to. Without [WithToken] it is for this machine: a request must have
// come to a loopback address, and name a loopback host, so that no website can
// have a browser read it under a name of its own. With a token every request
// needs it, as the password of HTTP Basic under any user name, or as a Bearer
// token, and the host may be any. Whoever listens beyond loopback sets a token
// and serves TLS, or has a proxy do so. A proxy makes a request of anybody's one
// of this machine's: with a proxy set a token, too.
//
// # What is shown as it is
//
// Nothing that comes from the source: names, problems and events may hold what
// a provider or a sink has sent. Characters that control how text is laid out,
// or that cannot be seen, are shown as U+FFFD, and long texts are cut; a key's
// own page has more of them.
package page
