package keywright

import (
	"context"
	"iter"
	"net/url"
	"time"

	"github.com/keywright/keywright/internal/wire"
)

// PlatformToken is an account token of Ace Data Cloud: what this client
// authenticates with.
type PlatformToken struct {
	ID         PlatformTokenID   `json:"id"`                  // a UUID
	Token      Secret            `json:"token,omitzero"`      // absent if the provider withholds it
	Masked     bool              `json:"-"`                   // the provider sent a mask in place of the token
	Expiration *time.Time        `json:"expiration"`          // UTC; nil: never. Seconds since the epoch on the wire
	UserID     string            `json:"user_id"`             // owner
	Tags       []string          `json:"tags,omitempty"`      // free labels
	Metadata   map[string]any    `json:"metadata,omitempty"`  // free JSON
	CreatedAt  time.Time         `json:"created_at,omitzero"` // UTC
	UpdatedAt  time.Time         `json:"updated_at,omitzero"` // UTC
	UsedAt     *time.Time        `json:"used_at"`             // UTC, last authenticated use; nil: never
	Extra      map[string]Secret `json:"-"`                   // members this version does not know, each as JSON
}

func (t *PlatformToken) decode(o *wire.Object) {
	for o.Next() {
		switch string(o.Key) {
		case "id":
			wire.StringRef(o, &t.ID)
		case "token":
			readToken(o, &t.Token, &t.Masked)
		case "expiration":
			o.UnixSecondsPtr(&t.Expiration)
		case "user_id":
			wire.StringRef(o, &t.UserID)
		case "tags":
			wire.Strings(o, &t.Tags)
		case "metadata":
			decodeMetadata(o, &t.Metadata)
		case "created_at":
			o.Time(&t.CreatedAt)
		case "updated_at":
			o.Time(&t.UpdatedAt)
		case "used_at":
			o.TimePtr(&t.UsedAt)
		}
	}
	t.Extra = unknown(o)
}

func (t *PlatformToken) ident() ident { return ident{text: string(t.ID)} }

func (*PlatformToken) kind() string { return "platform_token" }

func (t *PlatformToken) newSecret() (Secret, string) { return t.Token, "token" }

// UnmarshalJSON reads a platform token as the provider sends it.
func (t *PlatformToken) UnmarshalJSON(b []byte) error { return unmarshal(b, t) }

// User is the owner of a platform token.
type User struct {
	ID          string            `json:"id"`                    // a UUID, the user_id of everything else
	Username    string            `json:"username"`              // login
	Email       string            `json:"email,omitempty"`       // address
	Nickname    string            `json:"nickname,omitempty"`    // display name
	Avatar      string            `json:"avatar,omitempty"`      // URL of a picture
	Permissions []string          `json:"permissions,omitempty"` // such as "credentials:write", if the provider says
	Extra       map[string]Secret `json:"-"`                     // members this version does not know, each as JSON
}

func (u *User) decode(o *wire.Object) {
	for o.Next() {
		switch string(o.Key) {
		case "id":
			wire.StringRef(o, &u.ID)
		case "username":
			o.String(&u.Username)
		case "email":
			o.String(&u.Email)
		case "nickname":
			o.String(&u.Nickname)
		case "avatar":
			o.String(&u.Avatar)
		case "permissions":
			wire.Strings(o, &u.Permissions)
		}
	}
	u.Extra = unknown(o)
}

func (u *User) ident() ident { return ident{text: u.ID} }

func (*User) kind() string { return "user" }

// UnmarshalJSON reads a user as the provider sends it.
func (u *User) UnmarshalJSON(b []byte) error { return unmarshal(b, u) }

// PlatformTokenCreateParams are the parameters of a new platform token. All
// are optional.
type PlatformTokenCreateParams struct {
	UserID   Opt[string]         `json:"user_id,omitzero"`  // owner; for superusers
	Tags     Opt[[]string]       `json:"tags,omitzero"`     // free labels
	Metadata Opt[map[string]any] `json:"metadata,omitzero"` // free JSON, at most 32 deep
}

// PlatformTokenListParams are the filters and the page of a list. Without
// UserIDs it is the caller's own tokens.
type PlatformTokenListParams struct {
	UserIDs  []string // owners
	Tag      string   // only tokens with this tag
	Ordering Ordering // empty: newest first
	Limit    int      // items a page, 1 to 100; 0: the provider's default of 10 for List, 100 for All
	Offset   int      // items to skip
}

// PlatformTokenService manages the tokens of the management API itself. They
// cannot be changed or rotated: make a new one and delete the old.
type PlatformTokenService service

const platformTokensPath = aceDataAPI + "/platform-tokens/"

// Me returns the user behind the token in use: GET
// /api/v1/platform-tokens/me/. It is a read, and retried.
func (s *PlatformTokenService) Me(ctx context.Context, opts ...CallOption) (*User, error) {
	return fetch[User](ctx, (*service)(s), &request{op: &opPlatformTokenMe, path: platformTokensPath + "me/"}, ident{}, opts)
}

// Create makes a platform token: POST /api/v1/platform-tokens/. It is sent
// once; a lost answer is an error whose Recover looks for the token that may
// have been made.
func (s *PlatformTokenService) Create(ctx context.Context, p PlatformTokenCreateParams, opts ...CallOption) (*PlatformToken, error) {
	op := &opPlatformTokenCreate
	if err := checkText(op, "user_id", p.UserID, maxName); err != nil {
		return nil, err
	}
	if err := checkTags(op, p.Tags); err != nil {
		return nil, err
	}
	if err := checkMetadata(op, p.Metadata); err != nil {
		return nil, err
	}
	r := &request{op: op, path: platformTokensPath, params: p}
	r.probe = probeCreated((*service)(s), func(ctx context.Context, m *Meta) (*Page[PlatformToken], error) {
		q := PlatformTokenListParams{Ordering: NewestFirst, Limit: maxAceDataLimit}
		if owner, ok := p.UserID.Get(); ok {
			q.UserIDs = []string{owner}
		}
		return s.List(ctx, q, WithMeta(m))
	}, func(t *PlatformToken) time.Time { return t.CreatedAt }, func(*PlatformToken) bool { return true })
	return issue[PlatformToken](ctx, (*service)(s), r, ident{}, Secret{}, opts)
}

// Retrieve returns a platform token: GET /api/v1/platform-tokens/{id}. It is a
// read, and retried.
func (s *PlatformTokenService) Retrieve(ctx context.Context, id PlatformTokenID, opts ...CallOption) (*PlatformToken, error) {
	path, err := uuidPath(&opPlatformTokenRetrieve, platformTokensPath, id)
	if err != nil {
		return nil, err
	}
	return fetch[PlatformToken](ctx, (*service)(s), &request{op: &opPlatformTokenRetrieve, path: path}, ident{text: string(id)}, opts)
}

// List returns one page of platform tokens: GET /api/v1/platform-tokens/. It
// is a read, and retried.
func (s *PlatformTokenService) List(ctx context.Context, p PlatformTokenListParams, opts ...CallOption) (*Page[PlatformToken], error) {
	l, err := s.lister(p, opts)
	if err != nil {
		return nil, err
	}
	return l.list(ctx)
}

// All iterates over platform tokens: GET /api/v1/platform-tokens/.
func (s *PlatformTokenService) All(ctx context.Context, p PlatformTokenListParams, opts ...CallOption) iter.Seq2[*PlatformToken, error] {
	l, err := s.lister(p, opts)
	if err != nil {
		return failed[PlatformToken](err)
	}
	return l.all(ctx)
}

func (s *PlatformTokenService) lister(p PlatformTokenListParams, opts []CallOption) (lister[PlatformToken, *PlatformToken], error) {
	l := lister[PlatformToken, *PlatformToken]{
		s: (*service)(s), op: &opPlatformTokenList, path: platformTokensPath, paged: byOffset,
		limit: p.Limit, offset: p.Offset, opts: opts, filters: url.Values{},
	}
	if err := addTexts(l.op, l.filters, "user_id", p.UserIDs); err != nil {
		return l, err
	}
	setText(l.filters, "tag", p.Tag)
	if len(p.UserIDs) == 0 {
		l.narrow = l.s.ownUser
	}
	return l, setOrdering(l.op, l.filters, p.Ordering)
}

// Delete deletes a platform token, which stops working at that moment: DELETE
// /api/v1/platform-tokens/{id}. A delete whose answer is lost is looked into
// before it returns: success if the token is gone, and sent again if it is
// still there after the settle time.
func (s *PlatformTokenService) Delete(ctx context.Context, id PlatformTokenID, opts ...CallOption) error {
	path, err := uuidPath(&opPlatformTokenDelete, platformTokensPath, id)
	if err != nil {
		return err
	}
	return (*service)(s).remove(ctx, &request{op: &opPlatformTokenDelete, path: path}, func(ctx context.Context) error {
		_, err := s.Retrieve(ctx, id)
		return err
	}, opts)
}
