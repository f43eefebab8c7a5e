package keywright

import (
	"context"
	"encoding/json"
	"iter"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keywright/keywright/internal/wire"
)

// CredentialType is the kind of an Ace Data credential. Unknown values are
// kept.
type CredentialType string

// Kinds of credentials; the application's service decides which.
const (
	CredentialToken    CredentialType = "Token"    // has a token
	CredentialIdentity CredentialType = "Identity" // has a user name and a password
)

// Known reports whether this version knows the type.
func (t CredentialType) Known() bool { return known(t, CredentialToken, CredentialIdentity) }

// Credential is an API key of Ace Data Cloud.
type Credential struct {
	ID              CredentialID      `json:"id"`                           // a UUID; the same after a rotation
	ApplicationID   ApplicationID     `json:"application_id"`               // owner
	Application     *Application      `json:"application,omitempty"`        // expanded, if the provider does so
	UserID          string            `json:"user_id"`                      // holder
	CreatorID       string            `json:"creator_id,omitempty"`         // who made it
	Name            string            `json:"name,omitempty"`               // not unique; empty: unnamed
	Type            CredentialType    `json:"type"`                         // Token or Identity
	Token           Secret            `json:"token,omitzero"`               // of a Token credential; absent if the provider withholds it
	Username        string            `json:"username,omitempty"`           // of an Identity credential
	Password        Secret            `json:"password,omitzero"`            // of an Identity credential; absent if the provider withholds it
	Masked          bool              `json:"-"`                            // the provider sent a mask in place of the token or password
	Host            string            `json:"host,omitempty"`               // opaque; what it restricts is the provider's affair
	LimitedAmount   *float64          `json:"limited_amount"`               // cap in the service's unit; nil: none
	UsedAmount      float64           `json:"used_amount"`                  // spent so far in the service's unit; kept by a rotation
	ExpiredAt       *time.Time        `json:"expired_at"`                   // UTC; nil: never
	AllowedAPIIDs   []string          `json:"allowed_api_ids"`              // empty: every API of the application
	Granted         bool              `json:"granted"`                      // issued to another user
	GrantedToUserID string            `json:"granted_to_user_id,omitempty"` // that user
	Tags            []string          `json:"tags,omitempty"`               // free labels
	Metadata        map[string]any    `json:"metadata,omitempty"`           // free JSON
	CreatedAt       time.Time         `json:"created_at,omitzero"`          // UTC
	UpdatedAt       time.Time         `json:"updated_at,omitzero"`          // UTC
	Extra           map[string]Secret `json:"-"`                            // members this version does not know, each as JSON
}

func (c *Credential) decode(o *wire.Object) {
	for o.Next() {
		switch string(o.Key) {
		case "id":
			wire.StringRef(o, &c.ID)
		case "application_id":
			wire.StringRef(o, &c.ApplicationID)
		case "application":
			if o.Kind() != "an object" { // an id, where the expanded form is not given
				wire.StringRef(o, &c.ApplicationID)
				break
			}
			c.Application = new(Application)
			c.Application.decode(o.Object())
		case "user_id":
			wire.StringRef(o, &c.UserID)
		case "creator_id":
			wire.StringRef(o, &c.CreatorID)
		case "name":
			o.String(&c.Name)
		case "type":
			wire.Enum(o, &c.Type, CredentialToken, CredentialIdentity)
		case "token":
			readToken(o, &c.Token, &c.Masked)
		case "username":
			o.String(&c.Username)
		case "password":
			readMaskable(o, &c.Password, &c.Masked, "**", isPrintable)
		case "host":
			o.String(&c.Host)
		case "limited_amount":
			o.FloatPtr(&c.LimitedAmount)
		case "used_amount":
			o.Float(&c.UsedAmount)
		case "expired_at":
			o.TimePtr(&c.ExpiredAt)
		case "allowed_api_ids":
			wire.Strings(o, &c.AllowedAPIIDs)
		case "granted":
			o.Bool(&c.Granted)
		case "granted_to_user_id":
			o.String(&c.GrantedToUserID)
		case "tags":
			wire.Strings(o, &c.Tags)
		case "metadata":
			decodeMetadata(o, &c.Metadata)
		case "created_at":
			o.Time(&c.CreatedAt)
		case "updated_at":
			o.Time(&c.UpdatedAt)
		}
	}
	c.Extra = unknown(o)
	if c.ApplicationID == "" && c.Application != nil {
		c.ApplicationID = c.Application.ID
	}
}

func (c *Credential) ident() ident { return ident{text: string(c.ID)} }

func (*Credential) kind() string { return "credential" }

func (c *Credential) newSecret() (Secret, string) {
	if c.Type == CredentialIdentity || c.Token.IsZero() && !c.Password.IsZero() {
		return c.Password, "password"
	}
	return c.Token, "token"
}

// UnmarshalJSON reads a credential as the provider sends it.
func (c *Credential) UnmarshalJSON(b []byte) error { return unmarshal(b, c) }

// decodeMetadata reads free JSON; anything but an object goes to Extra.
func decodeMetadata(o *wire.Object, dst *map[string]any) {
	if o.Kind() == "an object" {
		_ = json.Unmarshal(o.Raw(), dst) // cannot fail: the body is valid and holds an object
	}
}

// CredentialCreateParams are the parameters of a new credential. The provider
// chooses the secret. Null is refused here: the provider's create does not
// take it, and omitting a field means the same.
type CredentialCreateParams struct {
	ApplicationID ApplicationID       `json:"application_id"`           // required
	LimitedAmount Opt[float64]        `json:"limited_amount,omitzero"`  // cap in the service's unit; omitted: none
	ExpiredAt     Opt[time.Time]      `json:"expired_at,omitzero"`      // omitted: never
	Host          Opt[string]         `json:"host,omitzero"`            // opaque, at most 255 characters
	Name          Opt[string]         `json:"name,omitzero"`            // at most 255 characters; not unique
	AllowedAPIIDs Opt[[]string]       `json:"allowed_api_ids,omitzero"` // UUIDs; omitted: every API
	ForUserID     Opt[string]         `json:"for_user_id,omitzero"`     // issue it to this user
	Tags          Opt[[]string]       `json:"tags,omitzero"`            // free labels
	Metadata      Opt[map[string]any] `json:"metadata,omitzero"`        // free JSON, at most 32 deep
}

// CredentialUpdateParams are what of a credential can be changed. At least one
// must be set; null clears what is there.
type CredentialUpdateParams struct {
	Name          Opt[string]    `json:"name,omitzero"`            // at most 255 characters; null: unnamed
	LimitedAmount Opt[float64]   `json:"limited_amount,omitzero"`  // cap in the service's unit; null: none
	ExpiredAt     Opt[time.Time] `json:"expired_at,omitzero"`      // null: never
	AllowedAPIIDs Opt[[]string]  `json:"allowed_api_ids,omitzero"` // UUIDs; null or empty: every API
}

// Ordering is the order of a list of Ace Data Cloud.
type Ordering string

// Orders of lists.
const (
	OldestFirst Ordering = "created_at"
	NewestFirst Ordering = "-created_at"
)

// CredentialListParams are the filters and the page of a list. Unless UserIDs
// or ApplicationIDs narrow it, the list is narrowed to the caller's own
// credentials: the provider fails a whole page for one row of another user. How
// Granted goes together with that is not documented; a grant's holder is the
// other user, so name the ApplicationIDs to find grants.
type CredentialListParams struct {
	UserIDs        []string        // holders
	ApplicationIDs []ApplicationID // owners
	Hosts          []string        // exact
	Names          []string        // exact
	Granted        Opt[bool]       // true: issued to others; false: for own use
	Ordering       Ordering        // empty: the provider's order
	Limit          int             // items a page, 1 to 100; 0: the provider's default of 10 for List, 100 for All
	Offset         int             // items to skip
}

// CredentialService manages API keys, which Ace Data Cloud calls credentials.
type CredentialService service

const credentialsPath = aceDataAPI + "/credentials/"

// Limits of text parameters, in characters.
const (
	maxName     = 255
	maxMetadata = 32 // levels
)

// Create makes a credential: POST /api/v1/credentials/. Its secret is in
// [Credential.Token] or [Credential.Password]. It is sent once: a lost answer
// is an error with outcome [Ambiguous] or [ResultLost], whose Recover looks
// for the credential by application, name and time.
func (s *CredentialService) Create(ctx context.Context, p CredentialCreateParams, opts ...CallOption) (*Credential, error) {
	if err := p.validate(&opCredentialCreate); err != nil {
		return nil, err
	}
	name, _ := p.Name.Get()
	r := &request{op: &opCredentialCreate, path: credentialsPath, params: p}
	r.probe = probeCreated((*service)(s), func(ctx context.Context, m *Meta) (*Page[Credential], error) {
		q := CredentialListParams{ApplicationIDs: []ApplicationID{p.ApplicationID}, Ordering: NewestFirst, Limit: maxAceDataLimit}
		if name != "" {
			q.Names = []string{name}
		}
		return s.List(ctx, q, WithMeta(m))
	}, func(c *Credential) time.Time { return c.CreatedAt }, func(c *Credential) bool { return c.Name == name })
	return issue[Credential](ctx, (*service)(s), r, ident{}, Secret{}, opts)
}

func (p *CredentialCreateParams) validate(op *operation) error {
	if p.ApplicationID == "" {
		return &ParamError{Op: op.name, Field: "application_id", Reason: "is required"}
	}
	if reason := uuidProblem(string(p.ApplicationID)); reason != "" {
		return &ParamError{Op: op.name, Field: "application_id", Reason: reason, Err: ErrInvalidID}
	}
	p.ApplicationID = ApplicationID(strings.ToLower(string(p.ApplicationID)))
	for _, field := range []struct {
		name string
		null bool
	}{
		{"limited_amount", p.LimitedAmount.IsNull()},
		{"expired_at", p.ExpiredAt.IsNull()},
		{"host", p.Host.IsNull()},
		{"name", p.Name.IsNull()},
		{"allowed_api_ids", p.AllowedAPIIDs.IsNull()},
		{"for_user_id", p.ForUserID.IsNull()},
		{"tags", p.Tags.IsNull() || p.Tags.state == optSet && p.Tags.value == nil},
		{"metadata", p.Metadata.IsNull() || p.Metadata.state == optSet && p.Metadata.value == nil},
	} {
		if field.null {
			return &ParamError{Op: op.name, Field: field.name, Reason: "must not be null in a create; omit it"}
		}
	}
	if ids, ok := p.AllowedAPIIDs.Get(); ok && len(ids) == 0 {
		return &ParamError{Op: op.name, Field: "allowed_api_ids", Reason: "must not be empty: that allows every API; omit it to mean that"}
	}
	if err := checkCredential(op, p.Name, p.LimitedAmount, p.ExpiredAt, p.AllowedAPIIDs); err != nil {
		return err
	}
	if err := checkText(op, "host", p.Host, maxName); err != nil {
		return err
	}
	if err := checkText(op, "for_user_id", p.ForUserID, maxName); err != nil {
		return err
	}
	if err := checkTags(op, p.Tags); err != nil {
		return err
	}
	return checkMetadata(op, p.Metadata)
}

// checkCredential checks what a create and an update have in common.
func checkCredential(op *operation, name Opt[string], amount Opt[float64], expires Opt[time.Time], apis Opt[[]string]) error {
	if err := checkText(op, "name", name, maxName); err != nil {
		return err
	}
	fail := func(field, reason string) error {
		return &ParamError{Op: op.name, Field: field, Reason: reason}
	}
	if v, ok := amount.Get(); ok {
		switch {
		case math.IsNaN(v) || math.IsInf(v, 0):
			return fail("limited_amount", "must be a finite number")
		case v < 0:
			return fail("limited_amount", "must be 0 or greater")
		}
	}
	if t, ok := expires.Get(); ok {
		switch y := t.UTC().Year(); {
		case t.IsZero():
			return fail("expired_at", "must not be the zero time; omit it, or give null to an update")
		case y < 1 || y > 9999:
			return fail("expired_at", "year "+itoa(y)+" cannot be sent as RFC 3339")
		}
	}
	ids, _ := apis.Get()
	seen := make(map[string]int, len(ids))
	for i, id := range ids {
		field := "allowed_api_ids[" + itoa(i) + "]"
		if reason := uuidProblem(id); reason != "" {
			return &ParamError{Op: op.name, Field: field, Reason: reason, Err: ErrInvalidID}
		}
		if lower := strings.ToLower(id); lower != id { // as the provider will show it
			return fail(field, "must be in lower case")
		}
		if first, twice := seen[id]; twice {
			return fail(field, "repeats element "+itoa(first))
		}
		seen[id] = i
	}
	return nil
}

// checkText checks a text parameter of at most limit characters.
func checkText(op *operation, field string, v Opt[string], limit int) error {
	s, _ := v.Get()
	if !utf8.ValidString(s) {
		return &ParamError{Op: op.name, Field: field, Reason: "is not valid UTF-8"}
	}
	if n := utf8.RuneCountInString(s); n > limit {
		return &ParamError{Op: op.name, Field: field, Reason: "is " + itoa(n) + " characters long; the limit is " + itoa(limit)}
	}
	return nil
}

func checkTags(op *operation, tags Opt[[]string]) error {
	list, _ := tags.Get()
	for i, tag := range list {
		field := "tags[" + itoa(i) + "]"
		if tag == "" {
			return &ParamError{Op: op.name, Field: field, Reason: "must not be empty"}
		}
		if err := checkText(op, field, Set(tag), maxName); err != nil {
			return err
		}
	}
	return nil
}

// checkMetadata refuses what cannot be sent as JSON, naming where it is.
func checkMetadata(op *operation, metadata Opt[map[string]any]) error {
	m, ok := metadata.Get()
	if !ok {
		return nil
	}
	var walk func(path string, v any, depth int) error
	walk = func(path string, v any, depth int) error {
		if depth > maxMetadata {
			return &ParamError{Op: op.name, Field: "metadata", Reason: "is nested more than " + itoa(maxMetadata) + " deep"}
		}
		switch v := v.(type) {
		case map[string]any:
			for k, inner := range v {
				if err := walk(path+"."+pathWord(k), inner, depth+1); err != nil {
					return err
				}
			}
			return nil
		case []any:
			for i, inner := range v {
				if err := walk(path+"["+itoa(i)+"]", inner, depth+1); err != nil {
					return err
				}
			}
			return nil
		}
		if _, err := json.Marshal(v); err != nil {
			return &ParamError{Op: op.name, Field: path, Reason: "cannot be sent as JSON"}
		}
		return nil
	}
	return walk("metadata", m, 0)
}

// pathWord keeps a caller's member name fit for an error's text.
func pathWord(k string) string {
	if len(k) > 40 || !isSlug(strings.ToLower(k)) || looksSecret(k) {
		return "(name)"
	}
	return k
}

// Retrieve returns a credential: GET /api/v1/credentials/{id}. Its secret may
// be masked; see [Credential.Masked]. It is a read, and retried.
func (s *CredentialService) Retrieve(ctx context.Context, id CredentialID, opts ...CallOption) (*Credential, error) {
	path, err := uuidPath(&opCredentialRetrieve, credentialsPath, id)
	if err != nil {
		return nil, err
	}
	return fetch[Credential](ctx, (*service)(s), &request{op: &opCredentialRetrieve, path: path}, ident{text: string(id)}, opts)
}

// List returns one page of credentials: GET /api/v1/credentials/. It is a
// read, and retried.
func (s *CredentialService) List(ctx context.Context, p CredentialListParams, opts ...CallOption) (*Page[Credential], error) {
	l, err := s.lister(p, opts)
	if err != nil {
		return nil, err
	}
	return l.list(ctx)
}

// All iterates over credentials, page by page as they are needed: GET
// /api/v1/credentials/. Pages go by offset: a credential that is deleted
// meanwhile can make the list skip one.
func (s *CredentialService) All(ctx context.Context, p CredentialListParams, opts ...CallOption) iter.Seq2[*Credential, error] {
	l, err := s.lister(p, opts)
	if err != nil {
		return failed[Credential](err)
	}
	return l.all(ctx)
}

func (s *CredentialService) lister(p CredentialListParams, opts []CallOption) (lister[Credential, *Credential], error) {
	l := lister[Credential, *Credential]{
		s: (*service)(s), op: &opCredentialList, path: credentialsPath, paged: byOffset,
		limit: p.Limit, offset: p.Offset, opts: opts, filters: url.Values{},
	}
	if err := setUUIDs(l.op, l.filters, "application_id", p.ApplicationIDs); err != nil {
		return l, err
	}
	for name, values := range map[string][]string{"user_id": p.UserIDs, "host": p.Hosts, "name": p.Names} {
		if err := addTexts(l.op, l.filters, name, values); err != nil {
			return l, err
		}
	}
	if v, ok := p.Granted.Get(); ok {
		l.filters.Set("granted", strconv.FormatBool(v))
	}
	if len(p.UserIDs) == 0 && len(p.ApplicationIDs) == 0 {
		l.narrow = l.s.ownUser
	}
	return l, setOrdering(l.op, l.filters, p.Ordering)
}

// Update changes credential at the provider, and *credential becomes its
// answer: PATCH /api/v1/credentials/{id}. It is sent again only after proof
// that it did nothing.
func (s *CredentialService) Update(ctx context.Context, credential *Credential, p CredentialUpdateParams, opts ...CallOption) error {
	if credential == nil {
		return nilResource(&opCredentialUpdate)
	}
	got, err := s.UpdateWithID(ctx, credential.ID, p, opts...)
	if err == nil {
		*credential = *got
	}
	return err
}

// UpdateWithID is [CredentialService.Update] for a credential known by its id.
func (s *CredentialService) UpdateWithID(ctx context.Context, id CredentialID, p CredentialUpdateParams, opts ...CallOption) (*Credential, error) {
	op := &opCredentialUpdate
	path, err := uuidPath(op, credentialsPath, id)
	if err != nil {
		return nil, err
	}
	if p.Name.IsZero() && p.LimitedAmount.IsZero() && p.ExpiredAt.IsZero() && p.AllowedAPIIDs.IsZero() {
		return nil, nothingToUpdate(op)
	}
	if err := checkCredential(op, p.Name, p.LimitedAmount, p.ExpiredAt, p.AllowedAPIIDs); err != nil {
		return nil, err
	}
	r := &request{op: op, path: path, params: p}
	r.probe = probeUpdated(
		func(ctx context.Context) (*Credential, error) { return s.Retrieve(ctx, id) },
		func(c *Credential) Outcome {
			return reflects(p, map[string]any{
				"name": c.Name, "limited_amount": c.LimitedAmount, "expired_at": c.ExpiredAt, "allowed_api_ids": c.AllowedAPIIDs,
			})
		})
	return change[Credential](ctx, (*service)(s), r, ident{text: string(id)}, opts)
}

// Rotate replaces the credential's token or password, and *credential becomes
// the provider's answer, new secret included: POST
// /api/v1/credentials/{id}/rotate/. The old secret stops working at that
// moment: there is no grace period. On an error *credential is as it was.
//
// It is sent once. A lost answer is an error with outcome [Ambiguous] or
// [ResultLost], whose Recover reads the credential and compares its secret
// with the one in *credential. Some deployments answer 404 or 405, which match
// [ErrNotFound] or carry that status: make a new credential and delete the old
// one there.
func (s *CredentialService) Rotate(ctx context.Context, credential *Credential, opts ...CallOption) error {
	if credential == nil {
		return nilResource(&opCredentialRotate)
	}
	old, _ := credential.newSecret()
	got, err := s.rotate(ctx, credential.ID, old, opts)
	if err != nil {
		return err
	}
	if got.ApplicationID == "" { // a sparse answer: no more than the secret
		merged := *credential
		if got.Username != "" {
			merged.Username = got.Username
		}
		merged.Token, merged.Password, merged.Masked, merged.Extra = got.Token, got.Password, false, got.Extra
		got = &merged
	}
	*credential = *got
	return nil
}

// RotateWithID is [CredentialService.Rotate] for a credential known by its id.
// Because the old secret is not known, Recover cannot compare: it reports
// [Ambiguous] with the credential as it is, whose secret is good either way.
func (s *CredentialService) RotateWithID(ctx context.Context, id CredentialID, opts ...CallOption) (*Credential, error) {
	return s.rotate(ctx, id, Secret{}, opts)
}

func (s *CredentialService) rotate(ctx context.Context, id CredentialID, old Secret, opts []CallOption) (*Credential, error) {
	path, err := uuidPath(&opCredentialRotate, credentialsPath, id)
	if err != nil {
		return nil, err
	}
	r := &request{op: &opCredentialRotate, path: path + "/rotate/", hide: []Secret{old}}
	r.probe = probeIssued(func(ctx context.Context) (*Credential, error) { return s.Retrieve(ctx, id) }, old)
	c, err := issue[Credential](ctx, (*service)(s), r, ident{text: string(id)}, old, opts)
	if err != nil {
		return nil, err
	}
	if c.ID == "" { // a sparse answer
		c.ID = id
	}
	return c, nil
}

// Delete deletes credential, whose secret stops working at that moment: DELETE
// /api/v1/credentials/{id}. A delete whose answer is lost is looked into
// before it returns: success if the credential is gone, and sent again if it
// is still there after the settle time.
func (s *CredentialService) Delete(ctx context.Context, credential *Credential, opts ...CallOption) error {
	if credential == nil {
		return nilResource(&opCredentialDelete)
	}
	return s.DeleteWithID(ctx, credential.ID, opts...)
}

// DeleteWithID is [CredentialService.Delete] for a credential known by its id.
func (s *CredentialService) DeleteWithID(ctx context.Context, id CredentialID, opts ...CallOption) error {
	path, err := uuidPath(&opCredentialDelete, credentialsPath, id)
	if err != nil {
		return err
	}
	return (*service)(s).remove(ctx, &request{op: &opCredentialDelete, path: path}, func(ctx context.Context) error {
		_, err := s.Retrieve(ctx, id)
		return err
	}, opts)
}

// ownUser narrows a list to the caller's own user_id, looked up once.
func (s *service) ownUser(ctx context.Context, cfg callConfig, filters url.Values) error {
	if cfg.anyHolder {
		return nil
	}
	me := s.c.me
	select {
	case me.busy <- struct{}{}:
	case <-ctx.Done():
		return &TransportError{
			Provider: s.c.provider, Op: opPlatformTokenMe.name, fate: fate{outcome: NotSent},
			cause: ctx.Err(), ctx: contextCause(ctx),
		}
	}
	defer func() { <-me.busy }()
	if me.id == "" {
		user, err := (*PlatformTokenService)(s).Me(ctx)
		if err != nil {
			return err
		}
		if uuidProblem(user.ID) != "" { // it goes into URLs
			return &DecodeError{
				Provider: s.c.provider, Op: opPlatformTokenMe.name, StatusCode: http.StatusOK,
				Path: "id", Want: "a UUID", Got: "other text", fate: fate{outcome: Rejected},
			}
		}
		me.id = user.ID
	}
	filters.Set("user_id", me.id)
	return nil
}

// addTexts sets a filter that may be repeated. An empty value would not
// filter at all.
func addTexts(op *operation, q url.Values, name string, values []string) error {
	for i, v := range values {
		switch {
		case v == "":
			return &ParamError{Op: op.name, Field: name + "[" + itoa(i) + "]", Reason: "must not be empty"}
		case v == "me" && name == "user_id" && op != &opApplicationList:
			return &ParamError{Op: op.name, Field: name + "[" + itoa(i) + "]", Reason: `this list does not know "me"; leave user ids out to mean that`}
		}
		q.Add(name, v)
	}
	return nil
}

// setUUIDs sets a filter that may be repeated.
func setUUIDs[T ~string](op *operation, q url.Values, name string, ids []T) error {
	for i, id := range ids {
		if reason := uuidProblem(string(id)); reason != "" {
			return &ParamError{Op: op.name, Field: name + "[" + itoa(i) + "]", Reason: reason, Err: ErrInvalidID}
		}
		q.Add(name, strings.ToLower(string(id)))
	}
	return nil
}

func setOrdering(op *operation, q url.Values, o Ordering) error {
	switch o {
	case "":
		return nil
	case OldestFirst, NewestFirst:
		q.Set("ordering", string(o))
		return nil
	}
	return &ParamError{Op: op.name, Field: "ordering", Reason: `must be "created_at" or "-created_at"`}
}
