package keywright

// Setting is one setting that a client would use, and where it comes from; see
// [RicloudSettings] and [AceDataSettings].
type Setting struct {
	Name      string   // as config files call it: "token", "url"
	Value     string   // what a client would use; empty for a secret, and for what is set nowhere
	Secret    Secret   // a token or the webhook secret; absent if it comes from an option, which is not read
	Origin    string   // "option", the variable, "FILE:LINE", or "default"; empty if it is set nowhere
	Looked    []string // variables and files where it was looked for, whether or not it was there
	Overrides []string // variables and "FILE:LINE" of places that set it and do not count
}

// Origins that are neither a variable nor a file.
const (
	originOption  = "option"
	originDefault = "default"
)

// RicloudSettings returns what [NewRicloud] would use if it were given the same
// options, in this order:
//
//   - "token"; it is no error if there is none.
//   - "url", the base URL.
//   - "max_retries", the number of attempts after the first.
//   - "await_for", the seconds for which ricloud is asked to hold the answer of
//     a config test.
//   - "secret" and "delta", the webhook receiver's, from the section [webhooks]:
//     no client uses them, and they have no default here.
//
// Files are looked at when NewRicloud would look at them: not if options or
// variables give both the token and the base URL. It sends nothing, and does
// not ask a [TokenSource] for its token.
//
// Errors are those of NewRicloud but for the absent token: a [*ConfigError] for
// a setting that cannot be used. Proxies and certificates are not looked at.
func RicloudSettings(opts ...Option) ([]Setting, error) {
	return settingsOf("ricloud", resolveRicloud, opts)
}

// AceDataSettings returns what [NewAceData] would use if it were given the same
// options: "token", which may be absent, and "url". It is otherwise like
// [RicloudSettings].
func AceDataSettings(opts ...Option) ([]Setting, error) {
	return settingsOf("acedata", resolveAceData, opts)
}

func settingsOf(provider string, resolve func(cfg *config, needToken bool) (*settings, error), opts []Option) ([]Setting, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	st, err := resolve(cfg, false)
	if err != nil {
		return nil, err
	}
	if err := (&client{provider: provider, source: st.source}).checkSource(); err != nil {
		return nil, err
	}
	return st.all, nil
}
