package keywright

import (
	"context"
	"iter"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/keywright/keywright/internal/wire"
)

// KeyType is the type of a ricloud key. Unknown values are kept.
type KeyType string

// Types of keys.
const (
	KeyStandard KeyType = "standard" // the organisation's own
	KeyTrial    KeyType = "trial"    // minted by an API administrator; usually expires
)

// Known reports whether this version knows the type.
func (t KeyType) Known() bool { return known(t, KeyStandard, KeyTrial) }

// KeyState is the state of a ricloud key. Unknown values are kept.
type KeyState string

// States of keys.
const (
	KeyActive      KeyState = "active"      // works
	KeyDeactivated KeyState = "deactivated" // disabled by its organisation
	KeyBlocked     KeyState = "blocked"     // disabled by an API administrator
	KeyExpired     KeyState = "expired"     // its trial is over
)

// Known reports whether this version knows the state.
func (s KeyState) Known() bool {
	return known(s, KeyActive, KeyDeactivated, KeyBlocked, KeyExpired)
}

// Key is a ricloud API key.
type Key struct {
	ID             KeyID             `json:"id"`               // from 1
	OrganisationID OrganisationID    `json:"organisation"`     // owner
	Type           KeyType           `json:"type"`             // standard or trial
	Config         *KeyConfig        `json:"config,omitempty"` // nil from older versions of the API
	StorageConfig  *StorageConfigID  `json:"storage_config"`   // nil: the organisation's default
	WebhookConfig  *WebhookConfigID  `json:"webhook_config"`   // nil: the organisation's default
	Token          Secret            `json:"token,omitzero"`   // authenticates as this key; absent if the provider withholds it
	Masked         bool              `json:"-"`                // the provider sent a mask in place of the token
	State          KeyState          `json:"state"`            // only active keys work
	DateCreated    time.Time         `json:"date_created"`     // UTC
	DateExpires    *time.Time        `json:"date_expires"`     // UTC; nil: never
	Extra          map[string]Secret `json:"-"`                // members this version does not know, each as JSON
}

// KeyConfig holds the settings of a key or of an organisation.
type KeyConfig struct {
	PublishSourceFiles bool              `json:"publish_source_files"` // whether source files are published
	Extra              map[string]Secret `json:"-"`                    // members this version does not know, each as JSON; not sent
}

func (c *KeyConfig) decode(o *wire.Object) {
	for o.Next() {
		if string(o.Key) == "publish_source_files" {
			o.Loose().Bool(&c.PublishSourceFiles) // its type is not documented
		}
	}
	c.Extra = unknown(o)
}

// decodeConfig reads a nested config object, which may be null.
func decodeConfig(o *wire.Object, dst **KeyConfig) {
	if inner := o.Loose().Object(); inner != nil {
		*dst = new(KeyConfig)
		(*dst).decode(inner)
	}
}

func (k *Key) decode(o *wire.Object) {
	for o.Next() {
		switch string(o.Key) {
		case "id":
			wire.IntRef(o, &k.ID)
		case "resource":
			o.Skip()
		case "organisation":
			wire.IntRef(o, &k.OrganisationID)
		case "type":
			wire.Enum(o, &k.Type, KeyStandard, KeyTrial)
		case "config":
			decodeConfig(o, &k.Config)
		case "storage_config":
			wire.IntRefPtr(o, &k.StorageConfig)
		case "webhook_config":
			wire.IntRefPtr(o, &k.WebhookConfig)
		case "token":
			readToken(o, &k.Token, &k.Masked)
		case "state":
			wire.Enum(o, &k.State, KeyActive, KeyDeactivated, KeyBlocked, KeyExpired)
		case "date_created":
			o.Time(&k.DateCreated)
		case "date_expires":
			o.TimePtr(&k.DateExpires)
		}
	}
	k.Extra = unknown(o)
}

func (k *Key) ident() ident { return ident{number: int64(k.ID)} }

func (*Key) kind() string { return "key" }

func (k *Key) newSecret() (Secret, string) { return k.Token, "token" }

// UnmarshalJSON reads a key as the provider sends it.
func (k *Key) UnmarshalJSON(b []byte) error { return unmarshal(b, k) }

// KeyCreateParams are the parameters of a new key. Both are optional.
type KeyCreateParams struct {
	StorageConfig Opt[StorageConfigID] `json:"storage_config,omitzero"` // omitted or null: the organisation's default
	WebhookConfig Opt[WebhookConfigID] `json:"webhook_config,omitzero"` // omitted or null: the organisation's default
}

// KeyUpdateParams are what of a key can be changed. At least one must be set.
type KeyUpdateParams struct {
	StorageConfig Opt[StorageConfigID] `json:"storage_config,omitzero"` // null: back to the organisation's default
	WebhookConfig Opt[WebhookConfigID] `json:"webhook_config,omitzero"` // null: back to the organisation's default
	Config        Opt[KeyConfig]       `json:"config,omitzero"`         // newer versions of the API only
}

// KeyRotateParams are the parameters of a rotation.
type KeyRotateParams struct {
	// Force revokes the old token at once. Without it the old token keeps
	// working for 6 hours after the call. A forced rotation of the key that the
	// client authenticates with locks the client out if the answer is lost.
	Force bool `json:"force,omitzero"`
}

// KeyListParams are the filters and the page of a list. The zero value lists
// everything.
type KeyListParams struct {
	Type     KeyType  // only keys of this type
	State    KeyState // only keys in this state
	Limit    int      // items a page, 1 to 1000; 0: the provider's default of 10 for List, 100 for All
	AfterID  KeyID    // start behind this key
	BeforeID KeyID    // stop before this key
}

// KeyService manages the keys of the organisation. ricloud has no way to
// delete a key.
type KeyService service

// Create makes a key: POST /keys. The new key's token is in [Key.Token].
// It is sent once: a lost answer is an error with outcome [Ambiguous] or
// [ResultLost], whose Recover looks for the key that may have been made.
func (s *KeyService) Create(ctx context.Context, p KeyCreateParams, opts ...CallOption) (*Key, error) {
	if err := checkConfigs(&opKeyCreate, p.StorageConfig, p.WebhookConfig); err != nil {
		return nil, err
	}
	r := &request{op: &opKeyCreate, path: "/keys", params: p}
	r.probe = probeCreated((*service)(s), func(ctx context.Context, m *Meta) (*Page[Key], error) {
		return s.List(ctx, KeyListParams{Limit: allLimit}, WithMeta(m))
	}, func(k *Key) time.Time { return k.DateCreated }, func(k *Key) bool { return k.matches(p.StorageConfig, p.WebhookConfig) })
	return issue[Key](ctx, (*service)(s), r, ident{}, Secret{}, opts)
}

// Retrieve returns a key, with its current token: GET /keys/{id}. It is a
// read, and retried.
func (s *KeyService) Retrieve(ctx context.Context, id KeyID, opts ...CallOption) (*Key, error) {
	path, err := numberPath(&opKeyRetrieve, "/keys", id, "")
	if err != nil {
		return nil, err
	}
	return fetch[Key](ctx, (*service)(s), &request{op: &opKeyRetrieve, path: path}, ident{number: int64(id)}, opts)
}

// Current returns the key behind the token in use: GET /key. It is a read, and
// retried.
func (s *KeyService) Current(ctx context.Context, opts ...CallOption) (*Key, error) {
	return fetch[Key](ctx, (*service)(s), &request{op: &opKeyCurrent, path: "/key"}, ident{}, opts)
}

// List returns one page of keys: GET /keys. It is a read, and retried.
func (s *KeyService) List(ctx context.Context, p KeyListParams, opts ...CallOption) (*Page[Key], error) {
	l, err := s.lister(p, opts)
	if err != nil {
		return nil, err
	}
	return l.list(ctx)
}

// All iterates over keys, page by page as they are needed: GET /keys. An
// error is yielded once and ends it; to go on from there, list again with
// AfterID set to the last key seen.
func (s *KeyService) All(ctx context.Context, p KeyListParams, opts ...CallOption) iter.Seq2[*Key, error] {
	l, err := s.lister(p, opts)
	if err != nil {
		return failed[Key](err)
	}
	return l.all(ctx)
}

func (s *KeyService) lister(p KeyListParams, opts []CallOption) (lister[Key, *Key], error) {
	l := lister[Key, *Key]{s: (*service)(s), op: &opKeyList, path: "/keys", limit: p.Limit, opts: opts, filters: url.Values{}}
	setText(l.filters, "type", p.Type)
	setText(l.filters, "state", p.State)
	return l, setWindow(&opKeyList, l.filters, int64(p.AfterID), int64(p.BeforeID))
}

// Update changes key at the provider, and *key becomes its answer: POST
// /keys/{id}. It is sent again only after proof that it did nothing; a lost
// answer is an error with outcome [Ambiguous] or [ResultLost].
func (s *KeyService) Update(ctx context.Context, key *Key, p KeyUpdateParams, opts ...CallOption) error {
	if key == nil {
		return nilResource(&opKeyUpdate)
	}
	got, err := s.UpdateWithID(ctx, key.ID, p, opts...)
	if err == nil {
		*key = *got
	}
	return err
}

// UpdateWithID is [KeyService.Update] for a key known by its id.
func (s *KeyService) UpdateWithID(ctx context.Context, id KeyID, p KeyUpdateParams, opts ...CallOption) (*Key, error) {
	path, err := numberPath(&opKeyUpdate, "/keys", id, "")
	if err != nil {
		return nil, err
	}
	if p.StorageConfig.IsZero() && p.WebhookConfig.IsZero() && p.Config.IsZero() {
		return nil, nothingToUpdate(&opKeyUpdate)
	}
	if err := checkConfigs(&opKeyUpdate, p.StorageConfig, p.WebhookConfig); err != nil {
		return nil, err
	}
	r := &request{op: &opKeyUpdate, path: path, params: p}
	r.probe = probeUpdated(
		func(ctx context.Context) (*Key, error) { return s.Retrieve(ctx, id) },
		func(k *Key) Outcome {
			shown := map[string]any{"storage_config": k.StorageConfig, "webhook_config": k.WebhookConfig}
			if k.Config != nil {
				shown["config"] = k.Config
			}
			return reflects(p, shown)
		})
	return change[Key](ctx, (*service)(s), r, ident{number: int64(id)}, opts)
}

// Rotate replaces the key's token, and *key becomes the provider's answer, new
// token included: POST /keys/{id}/rotate. On an error *key is as it was.
//
// It is sent once. A lost answer is an error with outcome [Ambiguous] or
// [ResultLost], whose Recover reads the key and compares its token with the
// one in *key. If the client authenticates with this very key, hand the new
// token to its token source next; see [RotatingToken].
func (s *KeyService) Rotate(ctx context.Context, key *Key, p KeyRotateParams, opts ...CallOption) error {
	if key == nil {
		return nilResource(&opKeyRotate)
	}
	got, err := s.rotate(ctx, key.ID, key.Token, p, opts)
	if err != nil {
		return err
	}
	if got.OrganisationID == 0 && got.DateCreated.IsZero() { // a sparse answer: no more than the token
		merged := *key
		merged.Token, merged.Masked, merged.Extra = got.Token, false, got.Extra
		got = &merged
	}
	*key = *got
	return nil
}

// RotateWithID is [KeyService.Rotate] for a key known by its id. Because the
// old token is not known, Recover cannot compare: it reports [Ambiguous] with
// the key as it is, whose token is good either way.
func (s *KeyService) RotateWithID(ctx context.Context, id KeyID, p KeyRotateParams, opts ...CallOption) (*Key, error) {
	return s.rotate(ctx, id, Secret{}, p, opts)
}

func (s *KeyService) rotate(ctx context.Context, id KeyID, old Secret, p KeyRotateParams, opts []CallOption) (*Key, error) {
	path, err := numberPath(&opKeyRotate, "/keys", id, "/rotate")
	if err != nil {
		return nil, err
	}
	r := &request{op: &opKeyRotate, path: path, params: p, hide: []Secret{old}}
	r.probe = probeIssued(func(ctx context.Context) (*Key, error) { return s.Retrieve(ctx, id) }, old)
	key, err := issue[Key](ctx, (*service)(s), r, ident{number: int64(id)}, old, opts)
	if err != nil {
		return nil, err
	}
	key.ID = id // a sparse answer may lack it
	return key, nil
}

// matches reports whether the key has the configs that a create asked for.
func (k *Key) matches(storage Opt[StorageConfigID], webhook Opt[WebhookConfigID]) bool {
	want, _ := storage.Get()
	hook, _ := webhook.Get()
	return orZero(k.StorageConfig) == want && orZero(k.WebhookConfig) == hook
}

func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// checkConfigs refuses ids that no config can have.
func checkConfigs(op *operation, storage Opt[StorageConfigID], webhook Opt[WebhookConfigID]) error {
	if v, ok := storage.Get(); ok && v < 1 {
		return &ParamError{Op: op.name, Field: "storage_config", Reason: "must be 1 or greater", Err: ErrInvalidID}
	}
	if v, ok := webhook.Get(); ok && v < 1 {
		return &ParamError{Op: op.name, Field: "webhook_config", Reason: "must be 1 or greater", Err: ErrInvalidID}
	}
	return nil
}

// readToken reads a token that the provider may withhold behind a mask.
func readToken(o *wire.Object, dst *Secret, masked *bool) {
	readMaskable(o, dst, masked, "*", isHeaderSafe)
}

// readMaskable reads a secret; a mask leaves it absent and sets masked, since
// a mask stored in place of a secret would destroy it. stars is how many stars
// in a row give a mask away: no token has any, a password might.
func readMaskable(o *wire.Object, dst *Secret, masked *bool, stars string, problem func(string) string) {
	hidden := false
	readSecret(o, dst, func(s string) string {
		if isMask(s) || strings.Contains(s, stars) || strings.Contains(s, "•") {
			hidden = true
			return ""
		}
		return problem(s)
	})
	if hidden {
		*dst, *masked = Secret{}, true
	}
}

// unmarshal decodes a resource that came from elsewhere than a call.
func unmarshal[T any, P resource[T]](b []byte, v P) error {
	o, err := wire.Open(b, wire.Strict)
	if err != nil {
		return err
	}
	var fresh T
	P(&fresh).decode(o)
	if err := o.Err(); err != nil {
		return err
	}
	*v = fresh
	return nil
}

// failed is the iterator of a list that cannot begin.
func failed[T any](err error) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) { yield(nil, err) }
}

func nilResource(op *operation) error {
	return &ParamError{Op: op.name, Field: "resource", Reason: "must not be nil"}
}

func nothingToUpdate(op *operation) error {
	return &ParamError{Op: op.name, Field: "update", Reason: "no field given; nothing was sent"}
}

func setText[T ~string](q url.Values, name string, v T) {
	if v != "" {
		q.Set(name, string(v))
	}
}

// setWindow sets the cursors of a list of numbered resources.
func setWindow(op *operation, q url.Values, after, before int64) error {
	for name, id := range map[string]int64{"after_id": after, "before_id": before} {
		switch {
		case id < 0:
			return &ParamError{Op: op.name, Field: name, Reason: "must be 1 or greater", Err: ErrInvalidID}
		case id > 0:
			q.Set(name, strconv.FormatInt(id, 10))
		}
	}
	return checkWindow(op, q)
}

// setTextWindow sets the cursors of a list of resources with text ids.
func setTextWindow[T ~string](op *operation, q url.Values, after, before T) error {
	for name, id := range map[string]T{"after_id": after, "before_id": before} {
		if id == "" {
			continue
		}
		if reason := segmentProblem(string(id)); reason != "" {
			return &ParamError{Op: op.name, Field: name, Reason: reason, Err: ErrInvalidID}
		}
		q.Set(name, string(id))
	}
	return checkWindow(op, q)
}

func checkWindow(op *operation, q url.Values) error {
	if after := q.Get("after_id"); after != "" && after == q.Get("before_id") {
		return &ParamError{Op: op.name, Field: "before_id", Reason: "equals after_id; the window is empty"}
	}
	return nil
}
