//! Request or event to engine to journal to store to answer: the only loop.
