// Text -> token ids, exactly as gpt2wgpu/tokenizer does it: `@huggingface/tokenizers` 0.2.0 (in vendor/, under the Apache License
// 2.0), made to agree with the Rust library where the two differ, and the rules around it (special tokens, cutting, refusals).

import { BertNormalizer, BertPreTokenizer, ByteLevelPreTokenizer, LowercaseNormalizer, NFCNormalizer, NFDNormalizer,
  NFKCNormalizer, NFKDNormalizer, Tokenizer, WhitespaceSplitPreTokenizer } from './vendor/tokenizers.js';
import { CHINESE, LEFT_ALONE, MARKS, PUNCTUATION, REMOVED } from './characters.js';
import { EngineError } from './errors.js';

// how much of a long text is tokenised at first, and at most; as in gpt2wgpu/tokenizer/__init__.py
const SPARE_CHARACTERS = 1 << 12, CHARACTERS_FOR_TOKEN = 32, READ_CHARACTERS = 1 << 22;

/** @param {string} ranges as in characters.js @returns {string} the inside of a class of a regular expression */
const inClass = (ranges) => ranges.replace(/[0-9a-f]+/g, '\\u{$&}').replaceAll(' ', '');
const removed = new RegExp(`[${inClass(REMOVED)}]`, 'gu');
const chinese = new RegExp(`[${inClass(CHINESE)}]`, 'gu');
const marks = new RegExp(`[${inClass(MARKS)}]`, 'gu');
const words = new RegExp(`[${inClass(PUNCTUATION)}]|[^\\p{White_Space}${inClass(PUNCTUATION)}]+`, 'gu');
const normalised = new RegExp(`[^${inClass(LEFT_ALONE)}]+`, 'gu');
// GPT-2's words; JavaScript's \s lacks U+0085 and has U+FEFF, which is no space in Unicode
const byteWords = new RegExp("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\p{White_Space}\\p{L}\\p{N}]+"
  + '|\\p{White_Space}+(?!\\P{White_Space})|\\p{White_Space}+', 'gu');

/** @param {string} form of Unicode @returns {(text: string) => string} by the library's tables */
const normaliser = (form) => (text) => text.replace(normalised, (part) => part.normalize(form));
const toNFD = normaliser('NFD');
/** Each letter by itself: a sigma at the end of a word stays σ. @param {string} text */
const lowerCase = (text) => text.replaceAll('Σ', 'σ').toLowerCase();

NFCNormalizer.prototype.normalize = normaliser('NFC');
NFDNormalizer.prototype.normalize = toNFD;
NFKCNormalizer.prototype.normalize = normaliser('NFKC');
NFKDNormalizer.prototype.normalize = normaliser('NFKD');
LowercaseNormalizer.prototype.normalize = lowerCase;
BertNormalizer.prototype.normalize = function (text) {
  const { clean_text: clean, handle_chinese_chars: apart, lowercase, strip_accents: strip } = this.config;
  if (clean) text = text.replace(removed, '').replace(/\p{White_Space}/gu, ' ');
  if (apart) text = text.replace(chinese, ' $& ');
  if (strip ?? lowercase) text = toNFD(text).replace(marks, '');
  return lowercase ? lowerCase(text) : text;
};
BertPreTokenizer.prototype.pre_tokenize_text = (text) => text.match(words) || [];
WhitespaceSplitPreTokenizer.prototype.pre_tokenize_text = (text) => text.match(/\P{White_Space}+/gu) || [];
ByteLevelPreTokenizer.prototype.pre_tokenize_text = function (text) {
  if (this.add_prefix_space && !text.startsWith(' ')) text = ' ' + text;
  const parts = this.use_regex ? text.match(byteWords) || [] : [text];
  return parts.map((part) => Array.from(this.text_encoder.encode(part), (byte) => this.byte_encoder[byte]).join(''));
};

/**
 * @param {object} json tokenizer.json
 * @param {object} text the settings of engine.json: max_length, head, tail, cuts_left, empty, vocab, special
 * @returns {Promise<TextTokenizer>}
 */
export async function loadTokenizer(json, text) {
  return new TextTokenizer(json, text);
}

class TextTokenizer {
  constructor(json, settings) {
    this.settings = settings;
    const added = json.added_tokens.map((token) => ({ ...token, lstrip: false, rstrip: false }));
    const whole = { ...json, added_tokens: added, post_processor: null }; // ends are put on here
    this.tokenizer = new Tokenizer(whole, { unk_token: json.model.unk_token });
    this.absorbing = json.added_tokens.filter((token) => token.lstrip || token.rstrip).map(absorbingPattern);
    this.special = new Set(settings.special);
  }

  /**
   * The ids of a text, special ones included, cut to `limit`; and how many there were before, of a much longer text at least.
   * @param {string} text
   * @param {string} where the text's name in messages, such as "text 3"
   * @returns {{ ids: Uint32Array, count: number }}
   * @throws {EngineError} for what the Python engine refuses
   */
  encode(text, where = 'the text', limit = this.settings.max_length) {
    checkText(text, where);
    const { head, tail, cuts_left: cutsLeft, empty, vocab } = this.settings;
    const special = head.length + tail.length, room = limit - special;
    if (room < 1) {
      throw new EngineError(`max_seq_length ${limit} leaves no room for text: this model adds ${special} special tokens`);
    }
    let { ids, whole } = this.#encodeNear(text, room);
    const count = whole ? ids.length + special : Math.max(ids.length + special, limit + 1);
    if (ids.length > room) ids = cutsLeft ? ids.slice(ids.length - room) : ids.slice(0, room);
    ids = [...head, ...ids, ...tail];
    if (!ids.length) {
      if (empty === null) throw new EngineError(`${where} has no tokens, and the model has none to stand for it: leave it out`);
      return { ids: Uint32Array.of(empty), count: 1 };
    }
    const unknown = ids.find((id) => id >= vocab);
    if (unknown !== undefined) {
      const name = JSON.stringify(this.tokenizer.id_to_token(unknown));
      throw new EngineError(`${where}: token ${name} (id ${unknown}) is not among the ${vocab} tokens of the model`);
    }
    return { ids: Uint32Array.from(ids), count };
  }

  /** How many leading tokens of prompt + text count as the prompt: those of the prompt alone, without a special one at the end. */
  promptLength(prompt) {
    const { ids } = this.encode(prompt, 'the prompt', 2 ** 31 - 1);
    return ids.length - Number(this.special.has(ids.at(-1)));
  }

  /** A token's own text. @param {number} id @returns {string} "" where it has none */
  tokenOf(id) {
    return this.tokenizer.decode([id], { clean_up_tokenization_spaces: false });
  }

  #plain(text) {
    for (const pattern of this.absorbing) text = text.replace(pattern, '$1');
    return this.tokenizer.encode(text, { add_special_tokens: false }).ids;
  }

  /** Ids without special ones, of as much of a long text as gives twice the tokens that are kept. */
  #encodeNear(text, room) {
    let most = SPARE_CHARACTERS + room * CHARACTERS_FOR_TOKEN;
    let ids = this.#plain(this.#cut(text, most));
    while (ids.length < 2 * room && most < Math.min(text.length, READ_CHARACTERS)) {
      most = Math.min(8 * most, READ_CHARACTERS);
      ids = this.#plain(this.#cut(text, most));
    }
    return { ids, whole: text.length <= most };
  }

  /** The first characters of a text, or its last if it is cut on the left; cut at a space after a word if possible. */
  #cut(text, characters) {
    if (text.length <= characters) return text;
    const isEnd = (i) => text[i] === ' ' && /[\p{L}\p{N}]$/u.test(text.slice(i - 2, i));
    const margin = Math.floor(characters / 8);
    if (this.settings.cuts_left) {
      const first = text.length - characters;
      for (let i = first + 1; i < first + margin; i++) if (isEnd(i)) return text.slice(i);
      return text.slice(first + isLow(text, first));
    }
    for (let i = characters - 1; i > characters - margin; i--) if (isEnd(i)) return text.slice(0, i);
    return text.slice(0, characters - isLow(text, characters));
  }
}

/** What a token matches that takes the spaces beside it with it; the library trims other characters. */
function absorbingPattern({ content, lstrip, rstrip }) {
  const spaces = '\\p{White_Space}*', escaped = content.replace(/[.*+?^${}()|[\]\\\/]/g, '\\$&');
  return new RegExp(`${lstrip ? spaces : ''}(${escaped})${rstrip ? spaces : ''}`, 'gu');
}

/** 1 where the second half of a surrogate pair stands, which must not be cut off from the first; else 0. */
function isLow(text, at) {
  return Number((text.charCodeAt(at) & 0xfc00) === 0xdc00);
}

/** @throws {EngineError} for what is not a string or not valid Unicode */
function checkText(text, where) {
  if (typeof text !== 'string') {
    const found = String(JSON.stringify(text) ?? text).slice(0, 40);
    throw new EngineError(`${where} is ${found} (type ${text === null ? 'null' : typeof text}), expected a string`);
  }
  const half = text.search(/\p{Surrogate}/u);
  if (half >= 0) {
    const code = text.charCodeAt(half).toString(16).toUpperCase(), place = [...text.slice(0, half)].length;
    const what = `holds half a surrogate pair (U+${code}, character ${place})`;
    throw new EngineError(`${where} ${what}, which is not valid Unicode: remove it`);
  }
}
