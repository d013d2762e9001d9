/* SHA-256 of two messages that share their blocks: a weight layer, and the file in it (see sha256_native.py).
 *
 * What is worked out of a block, the message schedule, is the same for both. Rounds are not, but each of one
 * message waits for the one before it, and the other's runs meanwhile: two hashes take the time of one.
 *
 * Source: FIPS 180-4, 6.2.2; Intel, "Intel SHA Extensions" (2013), for how the state lies in registers.
 */
#include <stddef.h>
#include <stdint.h>

#define PUBLIC __attribute__((visibility("default")))

#ifdef __x86_64__

#include <cpuid.h>
#include <immintrin.h>

#define SHA __attribute__((target("sha,sse4.1")))

/* FIPS 180-4, 4.2.2. */
static const uint32_t K[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* The eight words of a state, as the instructions want them: a, b, e, f and c, d, g, h, the first one highest. */
typedef struct {
    __m128i abef, cdgh;
} State;

SHA static State load(const uint32_t words[8])
{
    __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)words), 0xB1);
    __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(words + 4)), 0x1B);
    return (State){_mm_alignr_epi8(low, high, 8), _mm_blend_epi16(high, low, 0xF0)};
}

SHA static void store(uint32_t words[8], State state)
{
    __m128i low = _mm_shuffle_epi32(state.abef, 0x1B);
    __m128i high = _mm_shuffle_epi32(state.cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)words, _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128((__m128i *)(words + 4), _mm_alignr_epi8(high, low, 8));
}

/* Four rounds of both messages. w0 holds the words of the schedule that they take. */
#define ROUNDS(first, w0)                                                                         \
    do {                                                                                          \
        __m128i two = _mm_add_epi32(w0, _mm_load_si128((const __m128i *)&K[first]));              \
        a.cdgh = _mm_sha256rnds2_epu32(a.cdgh, a.abef, two);                                      \
        b.cdgh = _mm_sha256rnds2_epu32(b.cdgh, b.abef, two);                                      \
        two = _mm_shuffle_epi32(two, 0x0E);                                                       \
        a.abef = _mm_sha256rnds2_epu32(a.abef, a.cdgh, two);                                      \
        b.abef = _mm_sha256rnds2_epu32(b.abef, b.cdgh, two);                                      \
    } while (0)

/* The same, and then the four words of sixteen rounds later take the place of w0. */
#define ROUNDS_AND_SCHEDULE(first, w0, w1, w2, w3)                                                \
    do {                                                                                          \
        ROUNDS(first, w0);                                                                        \
        w0 = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4));             \
        w0 = _mm_sha256msg2_epu32(w0, w3);                                                        \
    } while (0)

/* Take `count` blocks of 64 bytes into two states of eight words each. */
PUBLIC SHA void podkiln_compress(uint32_t *one, uint32_t *other, const uint8_t *data, size_t count)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    State a = load(one), b = load(other);
    for (; count; count--, data += 64) {
        const State a_before = a, b_before = b;
        const __m128i *block = (const __m128i *)data;
        __m128i w0 = _mm_shuffle_epi8(_mm_loadu_si128(block), big_endian);
        __m128i w1 = _mm_shuffle_epi8(_mm_loadu_si128(block + 1), big_endian);
        __m128i w2 = _mm_shuffle_epi8(_mm_loadu_si128(block + 2), big_endian);
        __m128i w3 = _mm_shuffle_epi8(_mm_loadu_si128(block + 3), big_endian);
        for (int first = 0; first < 48; first += 16) {
            ROUNDS_AND_SCHEDULE(first, w0, w1, w2, w3);
            ROUNDS_AND_SCHEDULE(first + 4, w1, w2, w3, w0);
            ROUNDS_AND_SCHEDULE(first + 8, w2, w3, w0, w1);
            ROUNDS_AND_SCHEDULE(first + 12, w3, w0, w1, w2);
        }
        ROUNDS(48, w0);
        ROUNDS(52, w1);
        ROUNDS(56, w2);
        ROUNDS(60, w3);
        a.abef = _mm_add_epi32(a.abef, a_before.abef);
        a.cdgh = _mm_add_epi32(a.cdgh, a_before.cdgh);
        b.abef = _mm_add_epi32(b.abef, b_before.abef);
        b.cdgh = _mm_add_epi32(b.cdgh, b_before.cdgh);
    }
    store(one, a);
    store(other, b);
}

/* Whether this processor has the instructions (Intel SDM, CPUID: leaf 7 EBX bit 29, leaf 1 ECX bits 9 and 19). */
PUBLIC int podkiln_supported(void)
{
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !(ebx >> 29 & 1))
        return 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx >> 9 & 1 && ecx >> 19 & 1;
}

#else

PUBLIC int podkiln_supported(void)
{
    return 0;
}

#endif
